"""The image encoder and what it gives: patch features, views, region truth."""
