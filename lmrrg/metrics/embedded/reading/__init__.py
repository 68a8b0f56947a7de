"""How the rules read a report: its layout, the scopes of its cues, its organs."""
