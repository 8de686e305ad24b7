"""What impala-report is made of: words and tables (pages, findings), charts (gallery to canvas)."""
