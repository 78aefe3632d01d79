"""From scores to an answer: metrics.csv, tables, figures, verdicts and the report. No torch in this room."""
