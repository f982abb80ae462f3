"""The worker: claims runs, and runs them in warm child processes."""
