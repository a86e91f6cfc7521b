"""Train folds on the nodes of a Ray cluster; what comes back is what this machine would have left.

Ray is an optional package, and only this one imports it. Call structure::

    connection.connect                  join a cluster, or start one on this machine
    nodes.check_nodes                   the same versions and backend on every node
    machines.Cluster                    the `Machines` that train_folds takes
        one worker thread a fold
            node.FoldTrainer            the Ray actor: receives the data and the fold, runs its worker process
            mirror                      brings the fold's files back, after every epoch and at the end
        a node is lost                  the fold goes on from its last epoch on another one
"""
