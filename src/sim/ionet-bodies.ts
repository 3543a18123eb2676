import * as z from 'zod';
import { json, type Reply, type Request } from './http.ts';

/** What can still be changed after the deployment. */
const changeable = {
  env_variables: z.record(z.string(), z.string()).nullish(),
  secret_env_variables: z.record(z.string(), z.string()).nullish(),
  entrypoint: z.array(z.string()).nullish(),
  args: z.array(z.string()).nullish(),
  command: z.string().nullish(),
  traffic_port: z.number().int().min(1).max(65_535).nullish(),
};
const containerConfig = z.strictObject({
  replica_count: z.number().int().min(1),
  ...changeable,
});
export type ContainerConfig = z.output<typeof containerConfig>;
export const deployBody = z.strictObject({
  resource_private_name: z.string().min(1),
  duration_hours: z.number().int().min(1),
  gpus_per_container: z.number().int().min(1),
  hardware_id: z.number().int(),
  location_ids: z.array(z.number().int()).min(1),
  container_config: containerConfig,
  registry_config: z.strictObject({
    image_url: z.string().min(1),
    registry_username: z.string().nullish(),
    registry_secret: z.string().nullish(),
  }),
});
export const patchBody = z.strictObject({
  ...changeable,
  image_url: z.string().min(1).nullish(),
  registry_username: z.string().nullish(),
  registry_secret: z.string().nullish(),
});
export const extendBody = z.strictObject({ duration_hours: z.number().int().min(1) });
export const renameBody = z.strictObject({ cluster_name: z.string().min(1) });

/** A refusal in one line of text. */
export const detail = (status: number, message: string): Reply => json(status, { detail: message });
/** Successful reads are wrapped. */
export const data = (value: unknown): Reply => json(200, { data: value });
type Problem = Readonly<{ loc: readonly (string | number)[]; msg: string; type: string }>;
export const unprocessable = (problems: readonly Problem[]): Reply => json(422, { detail: problems });

/** A whole number of the query, or the 422 that says what is wrong with it. */
export function integer(request: Request, name: string, min: number): number | Reply {
  const raw = request.query.get(name);
  if (raw === null) return unprocessable([{ loc: ['query', name], msg: 'Field required', type: 'missing' }]);
  const value = Number(raw);
  if (raw.trim() === '' || !Number.isInteger(value)) {
    return unprocessable([{ loc: ['query', name], msg: 'Input should be a valid integer', type: 'int_parsing' }]);
  }
  if (value < min) {
    return unprocessable([
      { loc: ['query', name], msg: `Input should be greater than or equal to ${min}`, type: 'greater_than_equal' },
    ]);
  }
  return value;
}

/** Undefined for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The value, or the 422 that says what is wrong with it. */
export function parseBody<S extends z.ZodType>(request: Request, schema: S): { value: z.output<S> } | Reply {
  const parsed = schema.safeParse(parseJson(request.raw));
  if (parsed.success) return { value: parsed.data };
  return unprocessable(
    parsed.error.issues.flatMap((issue): Problem[] => {
      const loc = ['body', ...issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part))];
      if (issue.code === 'unrecognized_keys') {
        return issue.keys.map((key) => ({
          loc: [...loc, key],
          msg: 'Extra inputs are not permitted',
          type: 'extra_forbidden',
        }));
      }
      const missing = issue.code === 'invalid_type' && issue.input === undefined;
      return [{ loc, msg: missing ? 'Field required' : issue.message, type: missing ? 'missing' : issue.code }];
    }),
  );
}
