"""Floor 4: networks, noise, schedules and the model bundle; pure maths that knows no scanner file."""
