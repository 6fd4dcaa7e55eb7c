"""Who gets a task."""
