"""The shop with receivers whose queues and releases a test chooses, for the doctor to look at."""
