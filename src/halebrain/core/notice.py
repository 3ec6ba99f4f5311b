"""What is said wherever a result is shown."""

NOTICE = "Research use only. Not a medical device."
