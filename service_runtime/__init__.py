"""How a process lives: settings, database, messaging, telemetry, health, clean stops."""
