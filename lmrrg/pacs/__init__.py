"""The way from a picture archive (PACS) to the report service and back."""
