"""Layer 4: networks, noise, schedules and the model bundle; pure computation without file formats."""
