"""The notice that is shown with every result."""

NOTICE = "Research use only. Not a medical device."
