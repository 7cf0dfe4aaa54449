"""Data sources: MedMNIST sets, .npz files, image folders and the built-in synthetic set."""
