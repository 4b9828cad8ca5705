from django.db import migrations

BOOKS = {
    "Middlemarch": "George Eliot",
    "Persuasion": "Jane Austen",
    "The Moonstone": "Wilkie Collins",
}


def add_books(apps, schema_editor):
    book = apps.get_model("shop", "Book")
    book.objects.bulk_create(book(title=title, author=author) for title, author in BOOKS.items())


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(add_books, migrations.RunPython.noop)]
