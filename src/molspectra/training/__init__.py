"""Training: one explicit loop, its stages, schedules, checkpoints and run records."""
