"""The local machine as a small cluster: the agent, its launcher and the wrappers around jobs."""
