"""LM-RRG: chest X-ray report generation trained for clinical correctness (arXiv 2403.06728)."""

RESEARCH_USE_ONLY = "Research use only. Not for diagnosis."
