"""What tests of programs that cache LLM calls need; nothing here is imported by the library itself."""
