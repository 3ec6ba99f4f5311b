"""What is made of an anomaly map: which threshold for which contrast, and how odd the scan is among healthy ones."""
