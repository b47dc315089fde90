"""The whole story on a real account: its steps, the programs that they call, and the file that says what came of it."""
