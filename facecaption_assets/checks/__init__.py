"""What must hold of each table, training and benchmark."""
