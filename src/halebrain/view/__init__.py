"""Local server for reviewing a folder of detections: change the threshold, accept or reject findings."""
