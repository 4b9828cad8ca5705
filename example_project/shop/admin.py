from django.contrib import admin

from .models import Activity, Book, Invoice, Order, Profile, User


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    list_display = ["username", "email", "date_joined"]
    fields = ["username", "email", "is_active", "is_staff", "is_superuser"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["book", "customer", "placed", "shelf"]


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "copies_sold"]


@admin.register(Activity)
class ActivityAdmin(admin.ModelAdmin):
    list_display = ["started", "what", "process", "pid", "attempt", "state"]
    list_filter = ["process", "state", "what"]


admin.site.register(Profile)
admin.site.register(Invoice)
