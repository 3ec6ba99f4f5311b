"""A folder of detections served to a browser on this machine: live thresholds that can be kept, findings under review."""
