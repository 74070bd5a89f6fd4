import { createTRPCReact } from '@trpc/react-query';
import { createTRPCContext } from '@trpc/tanstack-react-query';
import { useQuery } from '@tanstack/react-query';
import type { AppRouter, Order } from './app-router';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<_T extends true>() {}

const trpc = createTRPCReact<AppRouter>();
const { useTRPC } = createTRPCContext<AppRouter>();

export function Classic() {
  const order = trpc.orders.byId.useQuery(7);
  same<Equal<typeof order.data, Order | null | undefined>>();
  // @ts-expect-error the id is a number
  trpc.orders.byId.useQuery('7');
  const create = trpc.orders.create.useMutation();
  create.mutate({ lines: [], paysWith: { kind: 'cash', notes: 1 } });
  trpc.orders.onChange.useSubscription(undefined, { onData(event) { const id: string = event.id; void id; } });
  const utils = trpc.useUtils();
  void utils.orders.search.invalidate();
}

export function Modern() {
  const api = useTRPC();
  const order = useQuery(api.orders.byId.queryOptions(7));
  same<Equal<typeof order.data, Order | null | undefined>>();
  // @ts-expect-error the id is missing
  api.orders.byId.queryOptions();
}
