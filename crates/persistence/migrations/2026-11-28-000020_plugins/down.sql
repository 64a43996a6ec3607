DROP INDEX audit_log_told;
ALTER TABLE audit_log DROP COLUMN xact;
DROP TABLE plugin_feed;
DROP TABLE plugin_deliveries;
DROP TABLE plugin_store;
DROP TABLE installed_plugins;
DROP TABLE plugin_packages;
