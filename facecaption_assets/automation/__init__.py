"""What runs by itself, and the jobs that it runs. No asset imports anything from here."""
