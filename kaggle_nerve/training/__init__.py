"""Training: losses, schedule, one fold, all folds. A killed run resumes from its checkpoint.

Call structure::

    train_folds                             train a run's folds within one time budget
        ParallelTraining.train              in worker processes (worker.main) ...
        or _one_by_one                      ... or in this one
            train_fold(job)                 train one fold under a lock; only read a finished one
                for each stage              small frames first if set (job.warm_stage), then the working size
                    Checkpoint.restore      go on after the last complete epoch, or build the network
                    Epochs(stage).run       measure the speed; run epochs until the schedule, patience, the
                                            deadline or the user ends them
                        for each epoch      sample frames, Steps.run, score_epoch, history, checkpoint
                _finish                     final weights, score, out-of-fold predictions, model, facts
"""
