"""What a report is worth."""
