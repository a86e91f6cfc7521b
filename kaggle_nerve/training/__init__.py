"""Training: losses, schedule, one fold, all folds. Every run resumes where it was killed."""
