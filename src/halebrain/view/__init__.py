"""A folder of detections served to a browser of this machine: another threshold kept, findings reviewed."""
