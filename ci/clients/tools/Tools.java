import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.internals.Exit;

/**
 * Runs Apache Kafka's command-line tools one after the other in one process, as to start a JVM for each takes longer than
 * most of them.
 *
 * <p>On standard input comes, for each call: how many arguments, the tool's class, each argument on its line, how many lines of
 * input, and those. On standard output goes: the exit code, how many lines of output, and those.
 */
public final class Tools {
    private static final class Ended extends Error {
        private static final long serialVersionUID = 1;

        Ended() {
            super("ended", null, false, false);
        }
    }

    /** Some tools take the end for an error, and end once more: what they said and meant before counts. */
    private static Integer firstCode;

    private static byte[] saidBefore;
    private static ByteArrayOutputStream said;

    private static void end(int code) {
        if (firstCode == null) {
            System.out.flush();
            firstCode = code;
            saidBefore = said.toByteArray();
        }
        throw new Ended();
    }

    /** What a tool wants to be done when its process ends. */
    private static final List<Runnable> ENDINGS = new ArrayList<>();

    public static void main(String[] none) throws IOException {
        // No answer if a tool ends the process: its caller sees that.
        Exit.setExitProcedure((code, message) -> end(code));
        Exit.setHaltProcedure((code, message) -> end(code));
        Exit.setShutdownHookAdder((name, runnable) -> ENDINGS.add(runnable));
        PrintStream answers = System.out;
        BufferedReader calls = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        while (true) {
            String count = calls.readLine();
            if (count == null) {
                // Clients that a tool left behind have threads of their own.
                Runtime.getRuntime().halt(0);
            }
            String tool = calls.readLine();
            String[] arguments = lines(calls, Integer.parseInt(count));
            String[] input = lines(calls, Integer.parseInt(calls.readLine()));
            StringBuilder text = new StringBuilder();
            for (String line : input) {
                text.append(line).append('\n');
            }
            said = new ByteArrayOutputStream();
            int code = run(tool, arguments, text.toString());
            String[] output = said.toString(StandardCharsets.UTF_8).lines().toArray(String[]::new);
            answers.println(code);
            answers.println(output.length);
            for (String line : output) {
                answers.println(line);
            }
            answers.flush();
        }
    }

    private static String[] lines(BufferedReader from, int count) throws IOException {
        String[] lines = new String[count];
        for (int n = 0; n < count; n++) {
            lines[n] = from.readLine();
        }
        return lines;
    }

    private static int run(String tool, String[] arguments, String input) {
        firstCode = null;
        PrintStream output = System.out;
        PrintStream errors = System.err;
        PrintStream both = new PrintStream(said, true, StandardCharsets.UTF_8);
        System.setOut(both);
        System.setErr(both);
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        try {
            Method main = Class.forName(tool).getMethod("main", String[].class);
            main.invoke(null, (Object) arguments);
            return firstCode == null ? 0 : firstCode;
        } catch (InvocationTargetException failed) {
            if (firstCode == null) {
                failed.getCause().printStackTrace(both);
                return 1;
            }
            return firstCode;
        } catch (ReflectiveOperationException absent) {
            absent.printStackTrace(both);
            return 127;
        } finally {
            if (firstCode != null) {
                both.flush();
                said.reset();
                said.writeBytes(saidBefore);
            }
            List.copyOf(ENDINGS).forEach(Runnable::run);
            ENDINGS.clear();
            both.flush();
            System.setOut(output);
            System.setErr(errors);
        }
    }
}
