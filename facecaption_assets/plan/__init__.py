"""What a big run takes: time, machines, storage, money."""
