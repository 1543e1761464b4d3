"""What a trained FLIP is for: encoding, search, sample retrievals, export."""
