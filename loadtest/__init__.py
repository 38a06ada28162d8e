"""Load on a real relay by Locust, in processes of its own: Locust patches the whole process."""
