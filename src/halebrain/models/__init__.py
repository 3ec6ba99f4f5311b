"""Networks, noise, schedules and the model bundle."""
