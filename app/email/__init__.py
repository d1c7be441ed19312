"""Mails: templates, SMTP, and a mailbox for development."""
