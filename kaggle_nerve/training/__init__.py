"""Training: losses, schedule, one fold, all folds. Every run resumes where it was killed.

How it nests::

    train_folds                             a run: its folds within one time budget
        SideBySide.train or _one_by_one     in processes of their own (worker.main), or here
            train_fold(job)                 one fold, locked; a finished one is only read
                for each stage              warm size if there is one (job.warm_stage), then working size
                    Epochs(stage).run       restored from its checkpoint, timed, until schedule, deadline or user end it
                        for each epoch      draw frames, run_steps, score_epoch, history, checkpoint
                _finish                     final weights, score, out-of-fold predictions, model, facts
"""
