-- The shop's own tables, in the database that OPLATA_DATABASE_URL names.
CREATE TABLE shipments (order_id varchar PRIMARY KEY, state varchar NOT NULL, amount_kopecks bigint NOT NULL);
CREATE TABLE letters (order_id varchar NOT NULL, about varchar NOT NULL);
