"""What a person sees of a training: its start, its progress, its validations."""
