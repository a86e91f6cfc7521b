"""Training: losses, schedule, one fold, all folds. A killed run resumes from its checkpoint.

Call structure::

    train_folds                             train a run's folds within one time budget
        SideBySide.train or _one_by_one     in worker processes (worker.main), or in this one
            train_fold(job)                 train one fold under a lock; only read a finished one
                for each stage              warm size if there is one (job.warm_stage), then working size
                    Epochs(stage).run       restore and time it; run until schedule, deadline or user ends it
                        for each epoch      sample frames, run_steps, score_epoch, history, checkpoint
                _finish                     final weights, score, out-of-fold predictions, model, facts
"""
