from django.db import migrations, models


def add_webhook(apps, schema_editor):
    apps.get_model("shop", "Webhook").objects.create()


class Migration(migrations.Migration):

    dependencies = [
        ('shop', '0003_invoices'),
    ]

    operations = [
        migrations.CreateModel(
            name='Webhook',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('is_broken', models.BooleanField(default=False)),
            ],
        ),
        migrations.RunPython(add_webhook, migrations.RunPython.noop),
    ]
