"""What people see of jobs, workers and the system."""
