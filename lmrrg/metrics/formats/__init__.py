"""Read files of reports in the forms that people have: tables, JSON and plain lines."""
