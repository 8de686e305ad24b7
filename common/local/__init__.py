"""What runs on this machine beside a program: its child processes, and the embedded server."""
