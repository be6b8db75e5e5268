"""The command line: a short command for each verb."""
