"""What a person looks at: the dashboard, the live view, logs, history, reports, and why nothing runs."""
