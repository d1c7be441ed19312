"""The example application: sends mails through a queue, as a customer of the library would write it."""
