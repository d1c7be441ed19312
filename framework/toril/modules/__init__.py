"""Where the container meets queues, schedules and settings."""
