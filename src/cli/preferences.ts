import Conf from 'conf';
import { type Preferences, preferencesFolder, readPreferences } from './preferences-file.ts';

/** The conf file, open for changes. Each change is written at once and whole, readable by its owner alone. */
export type PreferenceStore = Readonly<{
  path: string;
  get<K extends keyof Preferences>(name: K): Preferences[K];
  set<K extends keyof Preferences>(name: K, value: NonNullable<Preferences[K]>): void;
  delete(name: keyof Preferences): void;
}>;

/** Throws CliError (exit 2) when the file cannot be read. */
export function openPreferences(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): PreferenceStore {
  readPreferences(environment);
  const conf = new Conf<Preferences>({
    projectName: 'gpuproxy',
    cwd: preferencesFolder(environment),
    configName: 'config',
    configFileMode: 0o600,
  });
  return {
    path: conf.path,
    get: (name) => conf.get(name),
    set: (name, value) => conf.set({ [name]: value }),
    delete: (name) => conf.delete(name),
  };
}
